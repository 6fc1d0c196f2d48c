"""The four providers offline: for the demo, the tests and whoever tries the server without an account.

Each module is written from its provider's documentation and source and shares no code with the rest of mcp_taskruns:
a mistake in how we call a provider must not be repeated in how we answer for it.
"""
