"""Text drawn from a model: all at once, shown while it comes, or as one side of a conversation."""

from unipref.sampling._conversation import Conversation, Speaker
from unipref.sampling._generate import Sample, check_settings, generate
from unipref.sampling._stream import printable, stream

__all__ = ["Conversation", "Sample", "Speaker", "check_settings", "generate", "printable", "stream"]
