"""Simulators of the four providers, for the demo, the tests and trying the server without an account.

Each simulator is written from the documentation and source of its provider. It shares no code with the rest of
mcp_taskruns, so that a mistake in how the server calls a provider cannot hide behind the same mistake here.
"""
