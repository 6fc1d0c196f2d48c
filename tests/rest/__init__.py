"""The REST side under tools that know OpenAPI and nothing of this project."""
