// What hostile code tries, each as one small function that prints what came of it on standard output: "won" and a line feed, or
// the name of the error. Linked into a program (deeds_main.c) and into a proc macro (attack_macro.rs): the same attack with and
// without a compiler around it.
#pragma once

// 0; 1: it was kept from it, and the compile shall fail; 98: there is none of that name.
int kiln_attack(const char *name, const char *argument);
