"""One MCP server to start, watch and cancel long-running tasks at the providers that run them."""

__version__ = "0.1.0"
