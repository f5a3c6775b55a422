"""Every error that Errata raises on purpose. Each one is also the built-in error that fits.

    ErrataError
    |-- FactError (ValueError)               a fact, or a file of facts, cannot be used
    |   |-- SubjectNotInPrompt               the subject does not occur in its prompt
    |   |-- AmbiguousSubject                 the subject occurs more than once
    |   |-- EmptyTarget                      target_new is empty
    |   |-- PromptTooLong                    prompt and target exceed the model's context
    |   `-- NoFactsLeft                      every fact of an edit had to be left out
    |-- SettingsError (ValueError)           a setting has a wrong value
    |   |-- UnknownSetting                   no such setting, method or preset
    |   `-- LayerOutOfRange                  the model has no such layer
    |-- ModelError (ValueError)              a model cannot be used
    |   |-- UnknownArchitecture              a model whose parts cannot be found
    |   |-- UnsupportedArchitecture          a model that cannot be edited exactly, or not so
    |   `-- CheckpointError                  a checkpoint is missing, incomplete, or pickled
    |-- CovarianceError (ValueError)         second moments cannot be used
    |   |-- CovarianceMismatch               they belong to another model or site
    |   `-- CovarianceMissing (FileNotFoundError)   there is none where it was looked for
    |-- OutOfMemory (MemoryError)            memory does not suffice for a single fact
    |-- Collapsed (ValueError)               a write harmed the model beyond the guard's bounds
    |-- EditError (ValueError)               an edit, or its folder, cannot be used
    |   |-- WrongModel                       the edit was made for other weights
    |   |-- AlreadyApplied                   the edit is in the model already
    |   `-- NotApplied                       there is nothing to revert, or not in this order
    |-- EditorError (ValueError)             a trained editor cannot be used
    |-- ResultsError (ValueError)            a file of results cannot be read
    |-- ProcessLost (ConnectionError)        another process of a run of several has ended
    |-- MissingExtra (ImportError)           a package that this needs is not installed
    `-- OutputExists (FileExistsError)       the output is there already

`docs/errors/` has one page for each: symptom, cause, fix.
"""


class ErrataError(Exception):
    """The root: catch this to catch everything that Errata raises on purpose."""


class FactError(ErrataError, ValueError):
    """A fact, or a file of facts, cannot be used."""


class SubjectNotInPrompt(FactError):
    """The subject does not occur in its prompt, which has no `{}` either."""


class AmbiguousSubject(FactError):
    """The subject (or the `{}`) occurs more than once, so the place to edit is not clear."""


class EmptyTarget(FactError):
    """The target is empty or only white space."""


class PromptTooLong(FactError):
    """A prompt with its target has more tokens than the model's context."""


class NoFactsLeft(FactError):
    """Every fact of an edit had to be left out; there is nothing to write."""


class SettingsError(ErrataError, ValueError):
    """A setting has a value that cannot be used."""


class UnknownSetting(SettingsError):
    """A setting, a method or a preset of that name does not exist."""


class LayerOutOfRange(SettingsError):
    """The model has no block of that number."""


class ModelError(ErrataError, ValueError):
    """A model cannot be used."""


class UnknownArchitecture(ModelError):
    """The model's family has no row in `architectures.py`, and none can be derived from its modules."""


class UnsupportedArchitecture(ModelError):
    """What was asked cannot be done exactly on the model, or its architecture record does not hold."""


class CheckpointError(ModelError):
    """A checkpoint is missing, incomplete, or kept in pickle files alone."""


class CovarianceError(ErrataError, ValueError):
    """Second moments of keys cannot be used: not finite, not positive definite, unreadable."""


class CovarianceMismatch(CovarianceError):
    """The second moments belong to another model, revision, site or dtype."""


class CovarianceMissing(CovarianceError, FileNotFoundError):
    """There are no second moments where they were looked for."""


class OutOfMemory(ErrataError, MemoryError):
    """The memory of the device does not suffice for a single fact."""


class Collapsed(ErrataError, ValueError):
    """The first write of a guarded run harmed the model beyond the bounds; it was taken back."""


class EditError(ErrataError, ValueError):
    """An edit, or the folder it was read from, cannot be used."""


class WrongModel(EditError):
    """The edit was made for other weights than those of this model."""


class AlreadyApplied(EditError):
    """The edit is already in the model's weights."""


class NotApplied(EditError):
    """The edit is not in the model's weights, or is not the last one written."""


class EditorError(ErrataError, ValueError):
    """A trained editor (MEND) is missing, damaged, or belongs to another model."""


class ResultsError(ErrataError, ValueError):
    """A file of results is missing, cut off, damaged, or of a later version."""


class ProcessLost(ErrataError, ConnectionError):
    """Another process of a run of several (`torchrun`) has ended before its time."""


class MissingExtra(ErrataError, ImportError):
    """A package that only some commands need is not installed."""


class OutputExists(ErrataError, FileExistsError):
    """The output is there already, and Errata does not overwrite what it did not just make."""
