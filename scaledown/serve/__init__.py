"""An HTTP service: questions with their documents come in as text, answers and rankings go out.

    limits, refusals <- work: jobs, batches, answers <- web: gate, forms, replies <- service <- app

:mod:`scaledown.serve.web.gate` lets a request in, :mod:`scaledown.serve.web.forms` reads it, and it waits as a job
until :mod:`scaledown.serve.work.batching` computes it together with others, in the one thread that calls the model.
"""
