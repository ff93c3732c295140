"""Text to records to token tries: readers, operators, the account of every row, and tokenising.

The published operators are in `unipref.data.catalogue`, one file each; importing it registers their cards.
"""

from unipref.data.doctor import CHECKS, examine_records, examine_tokens
from unipref.data.encode import EncodedRecord, check_tokenizer, encode, encode_records
from unipref.data.formats import FORMATS, Format
from unipref.data.operators import (
    Chain,
    Operator,
    Step,
    as_pairs,
    chosen_only,
    limit_records,
    mismatch,
    one_pair_each,
    responses_of,
    split_records,
)
from unipref.data.readers import read_records, stream_records
from unipref.data.report import DataReport, RowFault, SetAside
from unipref.data.split import conversation_key, is_heldout
from unipref.data.token_columns import PARTNER_COLUMNS, TOKEN_COLUMNS, token_columns, with_token_columns

__all__ = [
    "CHECKS",
    "FORMATS",
    "PARTNER_COLUMNS",
    "TOKEN_COLUMNS",
    "Chain",
    "DataReport",
    "EncodedRecord",
    "Format",
    "Operator",
    "RowFault",
    "SetAside",
    "Step",
    "as_pairs",
    "check_tokenizer",
    "chosen_only",
    "conversation_key",
    "encode",
    "encode_records",
    "examine_records",
    "examine_tokens",
    "is_heldout",
    "limit_records",
    "mismatch",
    "one_pair_each",
    "read_records",
    "responses_of",
    "split_records",
    "stream_records",
    "token_columns",
    "with_token_columns",
]
