// Variables of the environment. Reading `environ` itself is not seen here: lib/macro/macro_object.c looks for it.
#include <stdlib.h>

#include "consumer/preload/observer.h"

OBSERVED char *__secure_getenv(const char *name);

#define OBSERVE_GETENV(name)                                                                                           \
    OBSERVED char *name(const char *variable) {                                                                        \
        kiln_note_text(KILN_OBSERVE_GETENV, CALLER, variable);                                                         \
        return REAL(name)(variable);                                                                                   \
    }
OBSERVE_GETENV(getenv)
OBSERVE_GETENV(secure_getenv)
OBSERVE_GETENV(__secure_getenv)

// Variables are the whole compiler's: what one macro sets the next one reads.
OBSERVED int setenv(const char *name, const char *value, int overwrite) {
    kiln_note_text(KILN_OBSERVE_ENVIRON, CALLER, "setenv");
    return REAL(setenv)(name, value, overwrite);
}

OBSERVED int unsetenv(const char *name) {
    kiln_note_text(KILN_OBSERVE_ENVIRON, CALLER, "unsetenv");
    return REAL(unsetenv)(name);
}

OBSERVED int putenv(char *text) {
    kiln_note_text(KILN_OBSERVE_ENVIRON, CALLER, "putenv");
    return REAL(putenv)(text);
}

OBSERVED int clearenv(void) {
    kiln_note_text(KILN_OBSERVE_ENVIRON, CALLER, "clearenv");
    return REAL(clearenv)();
}
