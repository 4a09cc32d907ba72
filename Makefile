# Every target calls bootstrap.sh, which also works where make is missing.
#   make demo ARGS="--model tiny"
.PHONY: demo test lab docs lint setup

demo test lab docs lint setup:
	@sh bootstrap.sh $@ $(ARGS)
