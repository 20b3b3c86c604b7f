"""Which models there are, getting and keeping them. Imports neither torch nor, before it is needed, huggingface_hub."""

import os

# huggingface_hub reads this when it is imported. It would otherwise tell the Hub of the packages that are installed.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
