"""The engines over base models of several sizes, with an adapter for each chat."""
