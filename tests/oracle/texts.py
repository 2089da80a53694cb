"""Strings for the tokenizers: a line in each of thirty scripts, and generated ones."""

# Script, a line of text. Letters with marks, joiners and digits of the script where it has them.
SCRIPTS = {
    "Latin": "Zażółć gęślą jaźń, Tiếng Việt, Ísland, naïve façade №1",
    "Greek": "Ἐν ἀρχῇ ἦν ὁ λόγος. Γειά σου, κόσμε!",
    "Cyrillic": "Съешь же ещё этих мягких булок; їжак, ґанок, Ђорђе",
    "Armenian": "Բարեւ աշխարհ, ինչպե՞ս եք։",
    "Hebrew": "שָׁלוֹם עוֹלָם — מה שלומך?",
    "Arabic": "مرحبًا بالعالم، كيف حالُك؟ ٠١٢٣٤٥٦٧٨٩ لا إله",
    "Syriac": "ܫܠܡܐ ܥܠܡܐ",
    "Thaana": "އައްސަލާމު ޢަލައިކުމް",
    "Nko": "ߊߟߎ ߣߌ߫ ߕߟߋ߬ ߁߂߃",
    "Devanagari": "नमस्ते दुनिया, क्षत्रिय श्री ०१२३४५",
    "Bengali": "ওহে বিশ্ব, কেমন আছো? ১২৩ ক্ষ",
    "Gurmukhi": "ਸਤ ਸ੍ਰੀ ਅਕਾਲ ਦੁਨੀਆ ੧੨੩",
    "Gujarati": "નમસ્તે દુનિયા ૧૨૩",
    "Oriya": "ନମସ୍କାର ଦୁନିଆ ୧୨୩",
    "Tamil": "வணக்கம் உலகம் ௧௨௩ ஸ்ரீ",
    "Telugu": "నమస్కారం ప్రపంచం ౧౨౩",
    "Kannada": "ನಮಸ್ಕಾರ ಜಗತ್ತು ೧೨೩",
    "Malayalam": "നമസ്കാരം ലോകം ൧൨൩ ൻ്റെ",
    "Sinhala": "ආයුබෝවන් ලෝකය ශ්‍රී ලංකා",
    "Thai": "สวัสดีชาวโลก น้ำใจ ๑๒๓",
    "Lao": "ສະບາຍດີຊາວໂລກ ໑໒໓",
    "Tibetan": "བཀྲ་ཤིས་བདེ་ལེགས། ༡༢༣",
    "Myanmar": "မင်္ဂလာပါ ကမ္ဘာလောက ၁၂၃",
    "Georgian": "გამარჯობა მსოფლიო, ᲗᲑᲘᲚᲘᲡᲘ",
    "Hangul": "안녕하세요 세계! 한글 ㄱㄴㄷ",
    "Ethiopic": "ሰላም ልዑል፣ እንዴት ነህ? ፩፪፫",
    "Cherokee": "ᎣᏏᏲ ᎡᎶᎯ ꭰꭱ",
    "Khmer": "សួស្តី​ពិភពលោក ១២៣",
    "Mongolian": "ᠰᠠᠶᠢᠨ ᠪᠠᠶᠢᠨ᠎ᠠ ᠤᠤ",
    "Hiragana and Katakana": "こんにちは、セカイ！ ﾊﾝｶｸ がぎぐ ー",
    "Han": "你好，世界。繁體字與简体字 〇一二三 𠮷野家",
    "Bopomofo": "ㄋㄧˇㄏㄠˇ",
    "Yi": "ꆏꉂꇁ ꀊꀋ",
    "Canadian Aboriginal": "ᐊᐃᓐᖓᐃ ᓄᓇᕐᔪᐊᖅ",
    "Runic": "ᚠᛖᚩᚻ᛫ᛒᛦᚦ᛫ᚠᚱᚩᚠᚢᚱ",
    "Gothic": "𐌷𐌰𐌹𐌻𐍃 𐍆𐌰𐌹𐍂𐍈𐌿𐍃",
    "Adlam": "𞤀𞤣𞤤𞤢𞤥 𞥑𞥒𞥓",
    "Cuneiform": "𒀀𒈾 𒂍𒁀𒌇",
    "Egyptian hieroglyphs": "𓀀𓂋𓈖 𓊪𓏏𓎛",
}

RANGES = [(0x20, 0x7e), (0x20, 0x7e), (0xa0, 0x24f), (0x300, 0x36f), (0x370, 0x52f),
          (0x530, 0x5ff), (0x590, 0x6ff), (0x700, 0x7ff), (0x900, 0xdff), (0xe00, 0xe7f),
          (0xf00, 0x109f), (0x10a0, 0x10ff), (0x1100, 0x11ff), (0x1200, 0x139f), (0x13a0, 0x16ff),
          (0x1780, 0x18af), (0x1e00, 0x1fff), (0x2000, 0x206f), (0x2070, 0x21ff), (0x2460, 0x24ff),
          (0x3040, 0x30ff), (0x4e00, 0x9fff), (0xa000, 0xa4cf), (0xac00, 0xd7a3), (0xe000, 0xf8ff),
          (0xf900, 0xfdff), (0xfe00, 0xfe0f), (0xfe70, 0xffef), (0x1d400, 0x1d7ff),
          (0x1f1e6, 0x1f1ff), (0x1f300, 0x1faff), (0x10000, 0x10ffff), (0x0, 0x1f)]
PIECES = [" ", "  ", "\n", "\r\n", "\r", "\t", "\n\n", "\u2028", "\u0085", "'s", "'LL", "...",
          "12345678901", "\u200d", "\u200f", "\u202e", "\ufeff", "Human:", "Assistant:", "e\u0301",
          "\u1112\u1161\u11ab", "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f44d\U0001f3fd",
          "\u2764\ufe0f", "<", ">", "|", "\u0130", "\u017f", "\u2581", "\u0120", "<0x0A>"]
# Beside the surrogates, non-characters, unassigned ones and the ends of planes.
ODD = [0xd7ff, 0xe000, 0xfffd, 0xfffe, 0xffff, 0x1fffe, 0x10ffff, 0x378, 0x7f, 0xad, 0xfdd0,
       0xe0001, 0xe007f]


def generated(draw, specials):
    """A string of a few pieces: words of one script, runs, special tokens, odd characters."""
    parts = []
    for _ in range(draw.randrange(1, 9)):
        kind = draw.random()
        if kind < 0.45:
            low, high = draw.choice(RANGES)
            code = [draw.randint(low, high) for _ in range(draw.randrange(1, 9))]
            parts.append("".join(chr(c) for c in code if not 0xd800 <= c <= 0xdfff))
        elif kind < 0.85:
            parts.append(draw.choice(PIECES) * draw.choice([1, 1, 1, 2, 3, 17]))
        elif kind < 0.92 and specials:
            parts.append(draw.choice(specials))
        else:
            parts.append(chr(draw.choice(ODD)))
    return "".join(parts)
