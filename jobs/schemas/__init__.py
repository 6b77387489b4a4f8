"""The JSON Schemas that editors and other programs read: written from the code, compared with it."""
