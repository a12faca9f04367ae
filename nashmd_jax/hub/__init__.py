"""Folders of the Hugging Face hub in and out."""
