"""Using a model: an OpenAI-compatible server, and a chat in the terminal."""

NOTICE = "For research only. Not a medical device, and not for clinical decisions: answers may be wrong."
