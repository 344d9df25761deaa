// A stack of its own for an integration test in C: real Kafka and MinIO through ops/stack, gone again at the end.
//
//   struct stack stack;
//   if (!stack_up(&stack)) skip or fail;  char *brokers = stack_env(&stack, "KILN_STACK_BROKERS");  stack_down(&stack);
//
// stack_up needs kiln-admin built in KILN_BINARY_DIR (target kiln-admin). KILN_TEST_STACK=DIR in the environment: a stack that
// somebody else started is used as it is and left running.
#pragma once

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

struct stack {
    char dir[256];
    bool borrowed;
};

__attribute__((unused)) static int stack_call(const struct stack *stack, const char *action, const char *server,
                                              const char *option) {
    const char *up[] = {"--build", KILN_BINARY_DIR, NULL}, *one[] = {server, option, NULL}, *none[] = {NULL};
    const char **more = !strcmp(action, "up") ? up : server ? one : none;
    char *argv[8] = {(char *)KILN_SOURCE_DIR "/ops/stack", (char *)action, (char *)"--dir", (char *)stack->dir, NULL};
    for (int i = 0; more[i]; i++)
        argv[4 + i] = (char *)more[i], argv[5 + i] = NULL;
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        dup2(STDERR_FILENO, STDOUT_FILENO);
        execv(argv[0], argv);
        _exit(127);
    }
    int status;
    return child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

__attribute__((unused)) static void stack_down(struct stack *stack) {
    if (!stack->borrowed)
        stack_call(stack, "down", NULL, NULL);
}

__attribute__((unused)) static bool stack_up(struct stack *stack) {
    const char *given = getenv("KILN_TEST_STACK");
    stack->borrowed = given != NULL;
    snprintf(stack->dir, sizeof stack->dir, "%s", given ? given : "/tmp/kiln-stack-XXXXXX");
    if (given)
        return true;
    if (!mkdtemp(stack->dir))
        return false;
    if (stack_call(stack, "up", NULL, NULL) == 0)
        return true;
    stack_down(stack);
    return false;
}

__attribute__((unused)) static int stack_stop(const struct stack *stack, const char *server, bool kill) {
    return stack_call(stack, "stop", server, kill ? "--kill" : NULL);
}
__attribute__((unused)) static int stack_start(const struct stack *stack, const char *server) {
    return stack_call(stack, "start", server, NULL);
}

// A line of DIR/env; heap. NULL when there is none.
__attribute__((unused)) static char *stack_env(const struct stack *stack, const char *name) {
    char path[300], line[1024], *value = NULL;
    snprintf(path, sizeof path, "%s/env", stack->dir);
    FILE *in = fopen(path, "re");
    while (in && !value && fgets(line, sizeof line, in)) {
        line[strcspn(line, "\n")] = '\0';
        size_t len = strlen(name);
        if (!strncmp(line, name, len) && line[len] == '=')
            value = strdup(line + len + 1);
    }
    if (in)
        fclose(in);
    return value;
}

// A file of a principal's: "kiln.conf", "tls.crt", "tls.key", "ca.crt", "record.key", "sign.key", "s3.key". Heap.
__attribute__((unused)) static char *stack_role_file(const struct stack *stack, const char *principal, const char *file) {
    char *path = NULL;
    return asprintf(&path, "%s/roles/%s/%s", stack->dir, principal, file) < 0 ? NULL : path;
}
