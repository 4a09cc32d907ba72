# Every target calls bootstrap.sh, which also works where make is missing.
#   make demo ARGS="--model tiny"
.PHONY: demo test lab docs site lint setup

demo test lab docs site lint setup:
	@sh bootstrap.sh $@ $(ARGS)
