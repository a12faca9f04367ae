"""Rows of `make seams` on adapters, through every stage of a run on text."""



