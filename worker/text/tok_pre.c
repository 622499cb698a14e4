/* GGUF names a pre-tokeniser instead of carrying its patterns (tokenizer.ggml.pre). This table gives the
 * patterns back: each is what the model's own tokenizer.json says, in the order in which its Split steps
 * run. An unknown name gets GPT-2's pattern, which every byte-level vocabulary can be used with, if not
 * always as trained. */
#include "tok_core.h"

#include <string.h>

#define TAIL "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define ENGLISH "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define UPPER "\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}"
#define LOWER "\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}"
#define DIGITS_3 "\\p{N}{1,3}"
#define KANA "[\\x{4e00}-\\x{9fa5}\\x{3040}-\\x{309f}\\x{30a0}-\\x{30ff}]+"
#define IDEOGRAPHS "[\\x{4e00}-\\x{9fa5}\\x{0800}-\\x{4e00}\\x{ac00}-\\x{d7ff}]+"
#define MODERN(digits) \
    ENGLISH "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" digits "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|" TAIL

enum { PRE_STEPS = 6 };

struct pre {
    const char *names; /* separated and enclosed by spaces */
    const char *pattern[PRE_STEPS + 1]; /* NULL behind the last */
    bool ignore_merges;
    bool marks; /* character level: spaces become U+2581, bytes fall back to <0xXX> */
};

static const struct pre table[] = {
    {" gpt-2 gpt2 mpt olmo jais phi-2 exaone4 modern-bert roberta-bpe gigachat mellum trillion a.x-4.0 "
     "jina-es jina-de "
     "jina-v2-es jina-v2-de jina-v1-en jina-v2-code granite-docling ",
     {TOK_GPT2_PATTERN},
     false,
     false},
    {" smollm starcoder refact command-r codeshell exaone minerva-7b mellum2 ",
     {"\\p{N}", TOK_GPT2_PATTERN},
     false,
     false},
    {" llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano ",
     {MODERN(DIGITS_3)},
     true,
     false},
    {" dbrx smaug-bpe chatglm-bpe ", {MODERN(DIGITS_3)}, false, false},
    {" glm4 glm5 ", {MODERN(DIGITS_3)}, true, false},
    {" qwen2 stablelm2 deepseek-r1-qwen hunyuan megrez grok-2 solar-open kormo f2llmv2 ",
     {MODERN("\\p{N}")},
     false,
     false},
    {" qwen35 ",
     {ENGLISH "|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|" TAIL},
     false,
     false},
    {" deepseek-llm ",
     {"[\\r\\n]", "\\s?[\\p{Lu}\\p{Ll}\\p{Lt}]+",
      "\\s?[!-/:-~\\x{ff01}-\\x{ff0f}\\x{ff1a}-\\x{ff5e}\\x{2018}-\\x{201f}\\x{3000}-\\x{3002}]+", "\\s+$",
      IDEOGRAPHS, "\\p{N}+"},
     false,
     false},
    {" deepseek-coder ", {"[\\r\\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", IDEOGRAPHS, "\\p{N}"}, false, false},
    {" deepseek-v3 hunyuan-dense joyai-llm hy_v4 ",
     {DIGITS_3, KANA,
      "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+|"
      " ?[\\p{P}\\p{S}]+[\\r\\n]*|" TAIL},
     false,
     false},
    {" falcon ", {"[\\p{P}$+<=>^~|`]+", TOK_GPT2_PATTERN, "[0-9][0-9][0-9]"}, false, false},
    {" gpt-4o llama4 kanana2 talkie minimax-m2 ",
     {"[^\\r\\n\\p{L}\\p{N}]?[" UPPER "]*[" LOWER "]+" ENGLISH "?|[^\\r\\n\\p{L}\\p{N}]?[" UPPER "]+[" LOWER
      "]*" ENGLISH "?|" DIGITS_3 "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|" TAIL},
     false,
     false},
    {" tekken ",
     {"[^\\r\\n\\p{L}\\p{N}]?[" UPPER "]*[" LOWER "]+|[^\\r\\n\\p{L}\\p{N}]?[" UPPER "]+[" LOWER
      "]*|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|" TAIL},
     true,
     false},
    {" gemma4 ", {"[^\\n]+|[\\n]+"}, false, true},
    {" default ", {"[\\p{P}$+<=>^~|]+", TOK_GPT2_PATTERN, "\\p{N}+", "[0-9][0-9][0-9]"}, false, false},
};

static const struct pre *find(struct str name)
{
    for (size_t i = 0; name.n && i < sizeof table / sizeof *table; i++) {
        for (const char *p = table[i].names; (p = strchr(p, ' ')) && p[1]; p++) {
            const char *end = strchr(p + 1, ' ');
            if ((size_t)(end - p - 1) == name.n && memcmp(p + 1, name.p, name.n) == 0)
                return &table[i];
        }
    }
    return &table[0];
}

const char *const *tok_pre_patterns(struct str name)
{
    const struct pre *p = find(name);
    return p->marks ? NULL : p->pattern;
}

int tok_pre_add(struct tok *t, struct str name, struct err *e)
{
    const struct pre *p = find(name);
    int st = ST_OK;
    t->ignore_merges = t->ignore_merges || p->ignore_merges;
    if (p->marks) {
        t->byte_level = false;
        t->byte_fallback = t->byte_decode = t->meta_decode = true;
        st = tok_norm_replace(&t->norm, STR_LIT(" "), STR_LIT(TOK_MARK), e);
    }
    for (size_t i = 0; !st && p->pattern[i]; i++)
        st = tok_split_match(&t->split, str_from(p->pattern[i]), TOK_ISOLATED, false, e);
    return st;
}
