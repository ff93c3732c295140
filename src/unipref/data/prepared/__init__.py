"""Prepared data: records that were tokenised once, in files that are mapped into memory and never read as a whole."""

from unipref.data.prepared._build import n_cores, prepare
from unipref.data.prepared._keys import key_folder, prepared_key, source_key, tokenizer_key
from unipref.data.prepared._prepared import Cuts, Prepared, open_prepared
from unipref.data.readers import stream_records

__all__ = [
    "Cuts",
    "Prepared",
    "key_folder",
    "n_cores",
    "open_prepared",
    "prepare",
    "prepared_key",
    "source_key",
    "stream_records",
    "tokenizer_key",
]
