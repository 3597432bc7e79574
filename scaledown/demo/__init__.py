"""A page to click: how a question's documents are compressed, kept and answered from, and what that costs.

    box_text <- document_file, samples
    timed_answer, memory_look <- answer_flops <- asking <- html <- page_updates <- page <- page_server

Only ``page`` and ``page_server`` know Gradio; all that is computed and shown is plain functions before them.
"""
