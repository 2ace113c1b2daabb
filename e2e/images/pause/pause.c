/* What holds a Pod's namespaces, on the tests' node. */
#include <sys/wait.h>
#include <unistd.h>
#include <signal.h>

static void end(int signal) { _exit(signal == SIGTERM ? 0 : 1); }

int main(void) {
  signal(SIGTERM, end);
  signal(SIGINT, end);
  for (;;) {
    /* It is the first process, so the dead of the Pod are its to collect. */
    if (waitpid(-1, 0, WNOHANG) <= 0) sleep(1);
  }
}
