"""The HTTP API of a model kept warm, and the client of it. The client imports neither torch nor the extra `serve`."""
