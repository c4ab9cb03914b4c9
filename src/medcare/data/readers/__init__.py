"""Any medical corpus in: conversations that train and items that test, from files and hub data sets.

The way of a row, module by module: `data_file` unpacks and decodes; `json_rows`, `tables` and `sheets` take
rows out of it, and `rows` chooses among them by the file's ending. `formats` recognises what the columns
are, `shapes` and `exams` read them, `checks` sees whether the result can be used, and `reading` makes
conversations and test items of it.
"""

from medcare.data.readers.formats import FORMATS
from medcare.data.readers.reading import Reading, conversations, items, open_data
from medcare.data.readers.row import Bad
from medcare.data.readers.rows import expand

__all__ = ["FORMATS", "Bad", "Reading", "conversations", "expand", "items", "open_data"]
