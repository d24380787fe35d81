/**
 * The VNC server itself keeps a connection that logs in with this password from doing anything but look: it takes no keys, no
 * pointer and no clipboard from it, and sends it none. No secret: without it one gets in as well, and may do more.
 */
export const VIEW_ONLY_PASSWORD = 'viewonly';

/**
 * TigerVNC's password file with it: two passwords of eight bytes, the first one's bearer may do everything, the second one's only
 * look; each encrypted with DES and a key that is the same everywhere (vncpasswd(1)), so that this one could be written down.
 */
export const VNC_PASSWORD_FILE = Buffer.from('dbd83cfd727a14583b33820a27ba4dd0', 'hex');
