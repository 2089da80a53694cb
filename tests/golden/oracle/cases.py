"""What the oracles are asked: strings, prompts and preference pairs, all written for this."""

# Strings for the tokenizers. Each line is one case; the comment says what it is after.
STRINGS = [
    # Dialogue as in hh-rlhf.
    "\n\nHuman: What is the capital of France?\n\nAssistant: The capital of France is Paris.",
    "\n\nHuman: Hi!\n\nAssistant:",
    "Human: no newline before me",
    "\n\nAssistant: I'm sorry, but I can't help with that.  Is there anything else?",
    "\n\nHuman: It's John's; they're here, we've gone, I'll see, she'd know, I'm sure.",
    "\n\nHuman: IT'S JOHN'S; THEY'RE HERE, WE'VE GONE, I'LL SEE, SHE'D KNOW, I'M SURE.",
    "",
    "a",
    "Assistant",
    " Assistant",
    "  Assistant",
    # Whitespace.
    " ",
    "  ",
    "   ",
    "                ",
    " leading and trailing ",
    "two  spaces   three    four",
    "\n",
    "\n\n",
    "\n\n\n\n",
    "\r\n\r\nHuman: carriage returns\r\n",
    "a\n b\n  c\n\td",
    "tab\tand\t\ttabs",
    "word \n word",
    "word  \n\n  word",
    "\u00a0no\u00a0break\u00a0space\u00a0",
    "thin\u2009space\u3000ideographic\u2028line\u2029paragraph\u0085next",
    "vertical\u000btab\u000cform feed",
    # Digits.
    "0 1 12 123 1234 12345 123456 1234567890",
    "3.14159, 1,000,000.00 and 1e-10",
    "in 2024-05-01T12:34:56Z",
    "\u0661\u0662\u0663\u0664 \u0967\u0968\u0969 \u2163 \u00bd\u00b2\u2461",
    # Punctuation and code.
    "!?.,;:'\"()[]{}<>/\\|@#$%^&*-_=+~`",
    "wait... what?!?! -- no... \u2014 yes\u2026",
    "\u201ccurly\u201d \u2018quotes\u2019 don\u2019t won\u2019t",
    "def f(x):\n    return {'a': x[0]}  # comment\n",
    "https://example.org/a?b=c&d=%20#e",
    # Special tokens inside the text, whole, broken and next to one another.
    "before <s> middle </s> after",
    "<s><s>twice</s></s>",
    "<unk> <0x41> <0x0A>",
    "x<|begin_of_text|>y<|eot_id|>z <|end_of_text|>",
    "<|start_header_id|>user<|end_header_id|>\n\nHello<|eot_id|>",
    "<|im_start|>user\nHello<|im_end|>\n<|endoftext|>",
    "<think>\n\n</think>\n\n<tool_call>{}</tool_call> <tool_response>",
    "<|im_start|<|im_end|> <|endoftext |> < s> </s",
    # Other scripts, emoji, marks.
    "Caf\u00e9 na\u00efve Z\u00fcrich \u0141\u00f3d\u017a \u00c5ngstr\u00f6m \u00df \u1e9e",
    "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440!"
    " \u0393\u03b5\u03b9\u03ac \u03c3\u03bf\u03c5 \u03ba\u03cc\u03c3\u03bc\u03b5",
    "\u4f60\u597d\uff0c\u4e16\u754c\u3002\u3053\u3093\u306b\u3061\u306f"
    " \uc548\ub155\ud558\uc138\uc694",
    "\u0645\u0631\u062d\u0628\u0627 \u05e9\u05dc\u05d5\u05dd \u202bRTL\u202c mixed",
    "\u0928\u092e\u0938\u094d\u0924\u0947 \u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35",
    "\U0001f600 \U0001f44d\U0001f3fd"
    " \U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f1eb\U0001f1f7",
    "x\U00010348y \U0001d518\U0001d52b\U0001d526 \U000e0041",
    # Sequences that NFC changes: combining marks, Hangul jamo, singletons, exclusions, order.
    "e\u0301 a\u030a o\u0308\u0304 \u1100\u1161\u11a8 \u212b \u2126 \u0958",
    "q\u0307\u0323 q\u0323\u0307 \u0344 \u0374 \uf900 \u1e9b\u0323",
    "\u0301starts with a mark, \u200bzero width\ufeff bom",
    # Control and private characters, and U+2581 itself, which Llama-2 uses for a space.
    "nul\x00bell\x07esc\x1b del\x7f",
    "private \ue000 \U0010fffd replacement \ufffd",
    "\u2581 \u2581\u2581already\u2581there",
    # Long runs.
    "a" * 70,
    "ha" * 24 + "!" * 33 + "-" * 40,
]

# Positions to cut the ids of some strings at, so that decoding sees incomplete characters.
CUT_STRINGS = [50, 51, 47, 49]

# Prompts for logits: about 20 and about 45 tokens.
LOGIT_PROMPTS = [
    "\n\nHuman: Can you tell me how to make tea?\n\nAssistant:",
    "\n\nHuman: What should I pack for a week in the mountains?\n\nAssistant: Warm clothes, good"
    " shoes, and some food.\n\nHuman: Anything else?\n\nAssistant: Yes,",
]

# Prompts for greedy generation, of unequal length.
GREEDY_PROMPTS = [
    "\n\nHuman: Hello\n\nAssistant:",
    "\n\nHuman: How do I make a good cup of coffee at home?\n\nAssistant:",
    "\n\nHuman: Who wrote this book?\n\nAssistant: I don't know.  Which book do you mean?"
    "\n\nHuman: The one about the whale.\n\nAssistant:",
    "\n\nHuman: I want to learn to play the piano, but I have little time.  What would you"
    " suggest?\n\nAssistant: How much time do you have each week?\n\nHuman: About two hours,"
    " mostly at the weekend.\n\nAssistant: That is enough to start.  Do you have a piano at home?"
    "\n\nHuman: No, but my sister has one.\n\nAssistant:",
]

TEA = "\n\nHuman: How long should green tea steep?\n\nAssistant:"
DOG = ("\n\nHuman: My dog barks at night.  What can I do?\n\nAssistant: How old is your dog, and"
       " where does it sleep?\n\nHuman: It is two years old and sleeps in the kitchen."
       "\n\nAssistant:")
DRINK = "\n\nHuman: What do you drink?\n\nAssistant: I like"
SAY = "\n\nHuman: What should I tell her?\n\nAssistant: Just say"
GREEK = "\n\nHuman: Say hello in Greek and add a smile.\n\nAssistant:"
KEYS = "\n\nHuman: I lost my keys.\n\nAssistant:"
SUM = "\n\nHuman: What is 17 + 25?\n\nAssistant:"
TRIP = ("\n\nHuman: I have three days in Z\u00fcrich in May.  What should I see?\n\nAssistant:"
        " Do you prefer museums or being outside?\n\nHuman: Both, if the weather is good.  I"
        " don\u2019t like crowds.\n\nAssistant:")

# Twelve pairs as two whole texts each, as hh-rlhf has them. The prompt is whatever TRL makes of
# the common prefix.
PAIRS = [
    {"about": "plain",
     "chosen": TEA + " Two to three minutes, in water that is not quite boiling.",
     "rejected": TEA + " As long as you want."},
    {"about": "the replies share two words, which go into the prompt",
     "chosen": DOG + " It may be lonely.  Try letting it sleep near you, and walk it at night.",
     "rejected": DOG + " It may stop if you shout at it."},
    {"about": "cut inside a word: It / I",
     "chosen": TEA + " It depends on the leaves, but about two minutes.",
     "rejected": TEA + " I have no idea."},
    {"about": "the whole chosen text has fewer tokens than the prompt: a completion of no tokens",
     "chosen": SAY + " something", "rejected": SAY + " somethin' nice about her shoes."},
    {"about": "an empty final reply; one text is a prefix of the other",
     "chosen": SUM + " 42", "rejected": SUM},
    {"about": "digits cut apart",
     "chosen": SUM + " 17 + 25 = 42.", "rejected": SUM + " 17 + 25 = 43."},
    {"about": "several turns, long completions",
     "chosen": TRIP + " Then walk along the lake in the morning, before it gets full, and take the"
     " train up to the Uetliberg for the view.  On a rainy day the Kunsthaus is a good choice: it"
     " is large, so you will find quiet rooms.\n\nYou could also visit the old botanical garden,"
     " which few visitors know.",
     "rejected": TRIP + " You should go to the main street and do some shopping.  There are many"
     " shops there, and it is where everybody goes.  I think that you would like it very much,"
     " because it is famous and there is a lot to buy, such as watches, chocolate, and clothes."},
    {"about": "an instruction in the last turn, newlines in the reply",
     "chosen": "\n\nHuman: List three fruits.\n\nAssistant: Sure:\n\n1. Apple\n2. Pear\n3. Plum",
     "rejected": "\n\nHuman: List three fruits.\n\nAssistant: Apple, apple, apple"},
    {"about": "characters outside the vocabulary",
     "chosen": GREEK + " \u0393\u03b5\u03b9\u03ac \u03c3\u03bf\u03c5 \U0001f600",
     "rejected": GREEK + " hello :)"},
    {"about": "a prompt that ends in a space",
     "chosen": "\n\nHuman: Ready?\n\nAssistant:  Yes, let us start.",
     "rejected": "\n\nHuman: Ready?\n\nAssistant:  No."},
    {"about": "texts differ before the last turn",
     "chosen": KEYS + " Where did you see them last?\n\nHuman: In the car.\n\nAssistant: Then look"
     " under the seats first.",
     "rejected": KEYS + " Too bad.\n\nHuman: Please help me.\n\nAssistant: Buy new ones."},
    {"about": "the whole chosen text has as many tokens as the prompt: a completion of no tokens",
     "chosen": DRINK + " water", "rejected": DRINK + " walnut milk"},
]

# Which layers the adapter of each family trains: one of the three blocks of block-wise training.
BLOCK_OF_FAMILY = {"llama-2-demo": "mid", "llama-3.1-demo": "local", "qwen2.5-demo": "mid",
                   "qwen3-demo": "global"}


def block_layers(layer_count, block):
    """Layer indices of a block: local first, then mid, then global.

    A remainder of the division by three goes to local first, then to mid.
    """
    size, rest = divmod(layer_count, 3)
    local = size + (rest > 0)
    mid = local + size + (rest > 1)
    first, end = {"local": (0, local), "mid": (local, mid), "global": (mid, layer_count)}[block]
    return list(range(first, end))
