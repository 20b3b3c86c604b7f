.PHONY: check package fmt

check:  ## formatting, types, layers, tests
	ruff check .
	ruff format --check .
	mypy
	lint-imports
	pytest

package:  ## the wheel and the source archive, built and tried in an empty environment
	python tools/check_package.py

fmt:  ## format and mend what can be mended
	ruff check --fix .
	ruff format .
