"""The errors a user can meet. Every message says what is wrong, where, and what to do.

    UnicrossError
    ├── RecipeError        a recipe or an override is wrong
    ├── DataError          items, images or captions cannot be read or used
    ├── CheckpointError    a model or training checkpoint cannot be read or does not fit
    ├── TrainingError      training cannot go on (a loss that is not finite, for instance)
    │   └── TrainingStopped    training was asked to stop by a signal, and saved
    └── StoreError         a vector store cannot be opened, does not fit, or refuses a request
        ├── NoStoreError   there is none
        └── QueryError     a request that no store can answer as it is put
            └── UnknownIdError   an id that is not in the store

Only the command line turns them into one line and exit code 1. Mistakes of ours are `assert`s.
"""


class UnicrossError(Exception):
    """Base of every error that this package raises on purpose."""


class RecipeError(UnicrossError):
    """A recipe or an override is wrong."""


class DataError(UnicrossError):
    """Items, images or captions cannot be read or used."""


class CheckpointError(UnicrossError):
    """A model or training checkpoint cannot be read or does not fit."""


class TrainingError(UnicrossError):
    """Training cannot go on."""


class TrainingStopped(TrainingError):
    """Training was asked to stop by a signal, finished its step and saved."""

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.signal = signal
        """The signal's number; a shell expects the exit code 128 + signal."""


class StoreError(UnicrossError):
    """A vector store cannot be opened, does not fit, or refuses a request."""


class NoStoreError(StoreError):
    """There is no vector store at an address."""


class QueryError(StoreError):
    """A request that no store can answer as it is put: a wrong filter, an unknown id, an empty text."""


class UnknownIdError(QueryError):
    """An id that is not in the store."""


NOT_FINITE = (
    "the model makes vectors that are not finite: its weights are damaged, or too large for the numbers "
    "of this "
    "device: take another checkpoint"
)
"""What is said where a vector would be near to everything or to nothing."""
