// What one job leaves for the next one, and how the next one looks for it. Each prints a line of its own for people and tests.
#pragma once

// Leaves the word in every directory, file, variable, argument, key and segment that lets it, and a process that goes on holding it.
// Prints "left N", the number of files that took it.
int kiln_canary_leave(const char *word);
// Looks for the word in the names and contents of all files but the toolchain's, in what every process shows of itself, in keys,
// segments and sockets. Prints "found PLACE" for each, else "clean".
int kiln_canary_find(const char *word);
