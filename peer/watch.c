#include "peer/watch.h"
#include <locale.h>
#include <curses.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { GOOD = 1, LOOK = 2, ESCAPE = 27 };

bool peer_watch_possible(void)
{
    const char *term = getenv("TERM");
    return isatty(STDIN_FILENO) && isatty(STDOUT_FILENO) && term && term[0] &&
           strcmp(term, "dumb") != 0;
}

/* Lines without indentation are headings; the machine's says whether it takes part, in words: colour only repeats it. */
static attr_t look_of(const char *line)
{
    if (line[0] == ' ' || line[0] == '\0')
        return A_NORMAL;
    attr_t a = A_BOLD;
    if (has_colors() && strstr(line, "not contributing"))
        a |= COLOR_PAIR(LOOK);
    else if (has_colors() && strstr(line, "contributing"))
        a |= COLOR_PAIR(GOOD);
    return a;
}

/* Draws the text from line *top on; moves *top so that something shows. */
static void draw(char *text, int *top)
{
    int n = 0, row = 0;
    for (const char *p = text; *p; p++)
        n += *p == '\n';
    const int room = LINES - 1, last = n > room ? n - room : 0;
    *top = *top > last ? last : *top < 0 ? 0 : *top;
    erase();
    char *rest = text;
    for (char *line = NULL; (line = strsep(&rest, "\n")) != NULL && row - *top < room; row++) {
        if (row < *top)
            continue;
        const attr_t a = look_of(line);
        attron(a);
        (void)move(row - *top, 0);
        (void)clrtobot(); /* what was too long for the line above goes on here: away with it */
        (void)addstr(line);
        attroff(a);
    }
    (void)move(LINES - 1, 0);
    (void)clrtobot();
    attron(A_REVERSE);
    mvprintw(LINES - 1, 0, "%-*.*s", COLS - 1, COLS - 1,
             last ? " q: end   arrows: scroll" : " q: end");
    attroff(A_REVERSE);
    refresh();
}

static bool take_key(int key, int *top)
{
    switch (key) {
    case 'q':
    case ESCAPE:
        return false;
    case KEY_UP:
        --*top;
        break;
    case KEY_DOWN:
        ++*top;
        break;
    case KEY_PPAGE:
        *top -= LINES - 2;
        break;
    case KEY_NPAGE:
        *top += LINES - 2;
        break;
    default:
        break; /* a resize, or a key that means nothing: drawn anew */
    }
    return true;
}

enum err peer_watch(void (*render)(void *ctx, FILE *out), void *ctx, double interval_s,
                    const volatile sig_atomic_t *stop, struct err_why *why)
{
    (void)setlocale(LC_CTYPE, "");
    SCREEN *screen = newterm(NULL, stdout, stdin);
    if (!screen)
        return err_set(
            why, ERR_UNSUPPORTED,
            "this terminal is not known here: try TERM=xterm, or TERM=dumb for plain text");
    (void)cbreak();
    (void)noecho();
    (void)curs_set(0);
    (void)keypad(stdscr, TRUE);
    set_escdelay(50);
    timeout((int)(interval_s * 1000));
    const char *no_color = getenv("NO_COLOR");
    if (!(no_color && no_color[0]) && has_colors() && start_color() == OK) {
        (void)use_default_colors();
        (void)init_pair(GOOD, COLOR_GREEN, -1);
        (void)init_pair(LOOK, COLOR_YELLOW, -1);
    }
    int top = 0;
    for (bool go_on = true; go_on && !*stop;) {
        char *text = NULL;
        size_t n = 0;
        FILE *out = open_memstream(&text, &n);
        if (!out)
            break;
        render(ctx, out);
        if (fclose(out) == 0)
            draw(text, &top);
        free(text);
        go_on = take_key(getch(), &top);
    }
    (void)endwin();
    delscreen(screen);
    return ERR_OK;
}
