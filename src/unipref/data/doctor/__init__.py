"""The doctor of data: what a reader should know of records and of their tokens before anything is trained.

Every check always answers with one `Finding`; `CHECKS` says in words what each asks.
"""

from unipref.data.doctor._checks import CHECKS
from unipref.data.doctor._records import examine_records
from unipref.data.doctor._tokens import examine_tokens

__all__ = ["CHECKS", "examine_records", "examine_tokens"]
