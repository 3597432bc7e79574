# What a change must pass, as CI runs it; and its parts.
.PHONY: check style test
check:
	bash .ci/run
style:
	bash setup_env.sh ruff check
test:
	bash setup_env.sh python -m pytest -n auto
