"""The safety protocol: messages that speak of self-harm, the disclosure that personas are AI, and
servers with minors.
"""
