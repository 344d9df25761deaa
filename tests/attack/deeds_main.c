#include <stdlib.h>
#include <string.h>

#include "tests/attack/canary.h"
#include "tests/attack/deeds.h"

// The word comes backwards, so that it is not found on the command line of who looks for it.
static int find_canary(const char *backwards) {
    size_t len = strlen(backwards);
    char *word = calloc(len + 1, 1);
    for (size_t i = 0; word && i < len; i++)
        word[i] = backwards[len - 1 - i];
    return word ? kiln_canary_find(word) : 99;
}

int main(int argc, char **argv) {
    const char *argument = argc > 2 ? argv[2] : "";
    if (argc < 2)
        return 99;
    if (strcmp(argv[1], "leave-canary") == 0)
        return kiln_canary_leave(argument);
    if (strcmp(argv[1], "find-canary") == 0)
        return find_canary(argument);
    if (strcmp(argv[1], "leave-and-find-canary") == 0)
        return kiln_canary_leave(argument) || kiln_canary_find(argument);
    return kiln_attack(argv[1], argument);
}
