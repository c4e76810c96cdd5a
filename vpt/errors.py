"""The one exception for what a user can mend."""


class VptError(Exception):
    """A problem in the input, told in one sentence: what was found, what was expected, how to mend it.

    The command line prints the sentence and exits with 1, without a traceback (`--debug` shows it).

    >>> raise VptError(f"{path}: label 7 is not in [0, 1, 2]; add it to `labels` in dataset.json")
    """


class SaidElsewhere(VptError):
    """A `VptError` that another of several processes tells the user."""


class VptWarning(UserWarning):
    """What a person should know of an answer that was given all the same, told in one sentence."""


class HeaderWarning(VptWarning):
    """What the header of a scan leaves open, so that its answer may lie elsewhere or have another size.

    >>> warnings.simplefilter("ignore", HeaderWarning)  # to whoever knows it
    """
