"""The trained stages: each joins model, data and loss into an Experiment."""
