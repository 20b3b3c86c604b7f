.PHONY: check package fmt coverage picture

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

coverage:  ## which lines the tests run, Triton kernels left out
	coverage erase
	coverage run -m pytest -n 0
	coverage combine
	coverage report --skip-covered --sort=cover

picture:  ## docs/poem.svg; a hot start, for nano is sure of its poem at once
	dgemma run -m nano --seed 3 --t-max 2.5 --horizon 16 --record docs/poem.jsonl "Write a poem."
	dgemma export docs/poem.jsonl docs/poem.svg --slow 320
	rm docs/poem.jsonl
