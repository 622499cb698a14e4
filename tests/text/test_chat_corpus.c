/* The templates of real models, rendered as Jinja2 renders them. The golden file is made by
 * tests/golden/chat/make_goldens.py from downloaded templates and lies in the cache folder. */
#include "cache_path.h"
#include "text/chat_golden.h"

static char path[4096];

static void every_model_template_renders_as_jinja2_does(void **state)
{
    (void)state;
    golden_file(path, true);
}

int main(void)
{
    FILE *f = fopen(cache_path(path, sizeof path, "chat_corpus.json"), "rb");
    if (!f) {
        printf("skipped: %s is not there (make_goldens.py --templates DIR --out FILE makes it)\n", path);
        return 77;
    }
    fclose(f);
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_model_template_renders_as_jinja2_does)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
