"""The shapes that cross a border: wire payloads, task messages, references to content. Data, no behaviour."""
