"""Listeners to `bridge_tasks.events`, one file each. They watch; nothing depends on what they do."""
