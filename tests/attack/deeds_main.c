#include "tests/attack/deeds.h"

int main(int argc, char **argv) { return argc < 2 ? 99 : kiln_attack(argv[1], argc > 2 ? argv[2] : ""); }
