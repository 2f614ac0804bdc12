"""The one exception for what a user can mend."""


class UserError(Exception):
    """A mistake that the user can mend: one clear line saying what, where and what to do.

    The command line prints it without a traceback and ends with exit status 2.
    """
