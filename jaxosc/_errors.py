"""The one error class that a person meets: a single sentence with got, expected and what to do."""


class JaxoscError(ValueError):
    """Raised for input that cannot work; its message is one sentence: got, expected, what to do.

    It is a `ValueError`, so code that knows nothing of jaxosc can catch it. The command line prints the sentence
    without a traceback and ends with exit code 2.
    """
