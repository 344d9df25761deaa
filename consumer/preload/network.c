// The network and names looked up in it. libc's own files behind these calls are not seen; the call is.
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <sys/socket.h>

#include "consumer/preload/observer.h"

OBSERVED int __connect(int fd, const struct sockaddr *address, socklen_t len);
OBSERVED int __socket(int domain, int type, int protocol);

#define OBSERVE_SOCKET(name)                                                                                           \
    OBSERVED int name(int domain, int type, int protocol) {                                                            \
        kiln_note_text(KILN_OBSERVE_NET, CALLER, "socket");                                                            \
        return REAL(name)(domain, type, protocol);                                                                     \
    }
OBSERVE_SOCKET(socket)
OBSERVE_SOCKET(__socket)

#define OBSERVE_CONNECT(name, type)                                                                                    \
    OBSERVED int name(int fd, type address, socklen_t len) {                                                           \
        kiln_note_text(KILN_OBSERVE_NET, CALLER, "connect");                                                           \
        return REAL(name)(fd, address, len);                                                                           \
    }
OBSERVE_CONNECT(connect, __CONST_SOCKADDR_ARG)
OBSERVE_CONNECT(__connect, const struct sockaddr *)

OBSERVED int getaddrinfo(const char *restrict name, const char *restrict service,
                         const struct addrinfo *restrict hints, struct addrinfo **restrict out) {
    kiln_note_text(KILN_OBSERVE_NET, CALLER, "getaddrinfo");
    return REAL(getaddrinfo)(name, service, hints, out);
}

OBSERVED int getnameinfo(const struct sockaddr *restrict address, socklen_t len, char *restrict host,
                         socklen_t host_len, char *restrict service, socklen_t service_len, int flags) {
    kiln_note_text(KILN_OBSERVE_NET, CALLER, "getnameinfo");
    return REAL(getnameinfo)(address, len, host, host_len, service, service_len, flags);
}

OBSERVED struct hostent *gethostbyname(const char *name) {
    kiln_note_text(KILN_OBSERVE_NET, CALLER, "gethostbyname");
    return REAL(gethostbyname)(name);
}

OBSERVED struct hostent *gethostbyname2(const char *name, int family) {
    kiln_note_text(KILN_OBSERVE_NET, CALLER, "gethostbyname2");
    return REAL(gethostbyname2)(name, family);
}

OBSERVED int gethostbyname_r(const char *restrict name, struct hostent *restrict out, char *restrict room, size_t len,
                             struct hostent **restrict result, int *restrict failure) {
    kiln_note_text(KILN_OBSERVE_NET, CALLER, "gethostbyname_r");
    return REAL(gethostbyname_r)(name, out, room, len, result, failure);
}

OBSERVED struct hostent *gethostbyaddr(const void *address, socklen_t len, int family) {
    kiln_note_text(KILN_OBSERVE_NET, CALLER, "gethostbyaddr");
    return REAL(gethostbyaddr)(address, len, family);
}

OBSERVED int getifaddrs(struct ifaddrs **out) {
    kiln_note_text(KILN_OBSERVE_NET, CALLER, "getifaddrs");
    return REAL(getifaddrs)(out);
}

OBSERVED struct if_nameindex *if_nameindex(void) {
    kiln_note_text(KILN_OBSERVE_NET, CALLER, "if_nameindex");
    return REAL(if_nameindex)();
}

OBSERVED unsigned if_nametoindex(const char *name) {
    kiln_note_text(KILN_OBSERVE_NET, CALLER, "if_nametoindex");
    return REAL(if_nametoindex)(name);
}

OBSERVED struct servent *getservbyname(const char *name, const char *protocol) {
    kiln_note_text(KILN_OBSERVE_NET, CALLER, "getservbyname");
    return REAL(getservbyname)(name, protocol);
}

OBSERVED struct servent *getservbyport(int port, const char *protocol) {
    kiln_note_text(KILN_OBSERVE_NET, CALLER, "getservbyport");
    return REAL(getservbyport)(port, protocol);
}

OBSERVED struct protoent *getprotobyname(const char *name) {
    kiln_note_text(KILN_OBSERVE_NET, CALLER, "getprotobyname");
    return REAL(getprotobyname)(name);
}
