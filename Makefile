.PHONY: check fmt

check:  ## what CI runs
	ruff check .
	ruff format --check .
	mypy
	lint-imports
	pytest

fmt:  ## format and mend what can be mended
	ruff check --fix .
	ruff format .
