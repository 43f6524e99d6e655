/* Exact match and F1 of answers.  The expected values were made by SQuAD 2.0's own evaluation rules written in Python
 * (lower, string.punctuation, \b(a|an|the)\b, split, Counter) and checked by hand. */
#include <onebyte/zo/answer.h>

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

static void known_answers(void **state)
{
    static const struct {
        const char *got, *want;
        bool exact;
        double f1;
    } cases[] = {
        {"Paris", "paris", true, 1},
        {" The  Eiffel Tower. ", "eiffel tower", true, 1},
        {"a cat", "an cat!", true, 1},
        {"Denver Broncos", "Broncos", false, 2.0 / 3},
        {"the red red fox", "red fox fox", false, 2.0 * 2 / 6},
        {"green", "blue", false, 0},
        {"", "", true, 1},
        {"the", "", true, 1},
        {"", "x", false, 0},
        {"...", "?!", true, 1},
        {"it's", "its", true, 1},
        {"well-known", "wellknown", true, 1},
        {"then", "n", false, 0},
        {"z\xe2\x80\x93" "a\xe2\x80\x93z", "z\xe2\x80\x93 \xe2\x80\x93z", true, 1}, /* an article between dashes parts them */
        {"\xc3\x84RGER \xc3\x89T\xc3\x89", "\xc3\xa4rger \xc3\xa9t\xc3\xa9", true, 1},
        {"18\n", "18", true, 1},
        {"$1,000", "1000", true, 1},
        {"one\xe3\x80\x80two\xc2\xa0three", "three two one", false, 1},
        {"the a an", "A", true, 1},
        {"x\xff", "x\xef\xbf\xbd", true, 1},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct zo_answer a = {0};
        assert_int_equal(zo_answer_compare(&a, cases[i].got, cases[i].want), ERR_OK);
        if (a.exact != cases[i].exact || fabs(a.f1 - cases[i].f1) > 1e-12)
            printf("'%s' against '%s': exact %d, F1 %g\n", cases[i].got, cases[i].want, a.exact, a.f1);
        assert_int_equal(a.exact, cases[i].exact);
        assert_true(fabs(a.f1 - cases[i].f1) <= 1e-12);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(known_answers)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
