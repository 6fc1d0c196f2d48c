"""Tests of the REST API with tools that read its OpenAPI document."""
