# Every target calls bootstrap.sh, which also works where make is missing.
#   make demo ARGS="--model tiny"
.PHONY: demo test lab lint setup

demo test lab lint setup:
	@sh bootstrap.sh $@ $(ARGS)
