/** A command that runs under another host name, where one is given; takes root. */
export function underHostname(hostname: string | undefined, command: readonly string[]): readonly string[] {
  return hostname === undefined ? command : ['unshare', '--uts', 'sh', '-c', 'hostname "$0" && exec "$@"', hostname, ...command];
}
