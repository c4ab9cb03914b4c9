"""Any medical corpus in: conversations that train and items that test, from files and hub data sets."""

from medcare.data.readers.formats import FORMATS
from medcare.data.readers.reading import Bad, Reading, conversations, items, open_data
from medcare.data.readers.rows import expand

__all__ = ["FORMATS", "Bad", "Reading", "conversations", "expand", "items", "open_data"]
