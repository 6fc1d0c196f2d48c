"""Capability files and overlays made of OpenAPI documents. Pure: documents to values to texts."""
