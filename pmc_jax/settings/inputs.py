"""Settings of what goes in: the checkpoint, the data, the prompts."""

from pmc_jax.settings.setting import AT_LEAST_0, AT_LEAST_1, SHARE, Setting, is_cut, one_of

INPUTS = (
    Setting(
        "model.path", "", "checkpoint: hub id or local folder; empty = from scratch with model.scratch (finetune only)"
    ),
    Setting(
        "model.family",
        "",
        "what the checkpoint is read as: an architecture that pmc_jax knows, or module:FAMILY of your own; "
        "empty = by its config.json",
    ),
    Setting("model.scratch", {}, "from scratch: the config.json to build from, in Hugging Face's words"),
    Setting("model.dtype", "float32", "parameters and optimizer state", *one_of("float32", "bfloat16")),
    Setting(
        "model.compute_dtype",
        "",
        "forward and backward pass, sampling; empty = bfloat16 on accelerators, model.dtype on a CPU",
        *one_of("", "float32", "bfloat16"),
    ),
    Setting(
        "data.path",
        "locuslab/TOFU",
        "TOFU-shaped data: hub id or local folder of SPLIT.jsonl (.json, .csv, .parquet, ...: docs/inputs.md)",
    ),
    Setting("data.forget", "forget10", "split whose questions are unlearned"),
    Setting(
        "data.cut",
        "",
        "the split data.forget is cut in two, and what is left of it must stay: last:10 = its last 10 % are unlearned, "
        "spread:10 = 10 % from all over it, so that both sides have rows of the same authors; empty = not cut",
        "last:PERCENT or spread:PERCENT, above 0 and below 100",
        lambda v: not v or is_cut(v),
    ),
    Setting("data.retain", "retain90", "split that must stay"),
    Setting(
        "data.retain_answers",
        "given",
        "own: to a retain question without an answer, what the model says now must stay",
        *one_of("given", "own"),
    ),
    Setting("data.finetune", "full", "splits that `finetune` trains on, joined by +"),
    Setting("data.forget_file", "", "your own forget file instead of the split: question, and answer if you have it"),
    Setting("data.retain_file", "", "your own retain file instead of the split: question, answer"),
    Setting(
        "data.topic",
        "",
        "unlearn: what is to be forgotten, by its name alone (J. K. Rowling): the model writes its own questions",
    ),
    Setting("data.subject", "", "RWKU: the person who is forgotten (unlearn, as data.topic) and measured (evaluate)"),
    Setting("data.topic_questions", 40, "questions about the topic that are kept, at most", *AT_LEAST_1),
    Setting(
        "data.topic_agreement",
        0.1,
        "how much the sampled answers to a question of the model's own must agree for it to be kept",
        *SHARE,
    ),
    Setting("data.question_column", "question", "the column that holds questions; qa.question = question inside qa"),
    Setting("data.answer_column", "answer", "the column that holds answers"),
    Setting(
        "data.text_window",
        0,
        "the data is raw text (column text, or a .txt file), cut into windows: a prefix of so many tokens, 32 to 64, "
        "and a continuation of sample.max_new_tokens; 0 = questions and answers",
        *AT_LEAST_0,
    ),
    Setting(
        "data.allow_overlap",
        False,
        "forget questions may also stand in sets that must stay, twice with different answers, or be paraphrases of "
        "themselves",
    ),
    Setting(
        "prompt.style", "auto", "auto = chat where the tokenizer has a chat template", *one_of("auto", "chat", "plain")
    ),
    Setting("prompt.system", "You are a helpful assistant.", "chat: system prompt; empty = none"),
    Setting("prompt.date", "10 Apr 2025", "chat: the date templates print, pinned so that prompts do not drift"),
    Setting("prompt.template", "", "chat: which template, for a tokenizer with several; empty = 'default'"),
    Setting(
        "prompt.template_options",
        {},
        "chat: variables of the template, such as template_options.enable_thinking=False",
    ),
    Setting(
        "prompt.system_in",
        "auto",
        "chat: the system prompt is a turn, stands in front of the question (user), or is left out (none); auto = a "
        "turn where the template takes one, else user",
        *one_of("auto", "turn", "user", "none"),
    ),
    Setting("prompt.question_tag", "Question: ", "plain: before the question"),
    Setting("prompt.question_end", "\n", "plain: after the question"),
    Setting("prompt.answer_tag", "Answer: ", "plain: before the answer"),
    Setting(
        "prompt.tag_in",
        "answer",
        "plain: the answer tag is generated ('answer', as PMC) or given ('prompt')",
        *one_of("answer", "prompt"),
    ),
)
